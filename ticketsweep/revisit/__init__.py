"""Stored tickets made again, and compared in function: what they predict, and where they carry to.

`bench` makes weights and masks as the trial had them; `tickets` all those of a trial; `pairs` says
which of them are compared; `comparing` joins them with the store. Nothing here knows Ray.
"""
