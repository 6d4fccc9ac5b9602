"""The mask database: six Parquet tables, one atomic file per trial and table, queried in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ticketsweep.store.database import Database


def open(uri: str | None = None) -> Database:
    """The mask database at a folder, a `file://`, `s3://` or `gs://` URI, to be read.

    Parameters
    ----------
    uri: None for `$TICKETSWEEP_STORAGE`, else `./ticketsweep-storage`, as on the command line.

    Raises StorageError if there is none.

    Examples
    --------
    >>> import pyarrow.compute as pc
    >>> import ticketsweep.store
    >>> database = ticketsweep.store.open()
    >>> database.trials().select(["sweep", "trial_id", "status"]).to_pylist()
    [{'sweep': 'mine', 'trial_id': 't0', 'status': 'complete'}]

    Sparse masks of one layer, without their bits, as a table of Arrow's. `to_pandas()` makes a data
    frame of it, and `polars.from_arrow(masks)` another, which shares its memory:

    >>> sparse = pc.field("sparsity") > 0.71
    >>> columns = ["replicate", "layer", "kept", "size"]
    >>> masks = database.masks(sweep="mine", layer="fc1", where=sparse, columns=columns)
    >>> masks.to_pylist()
    [{'replicate': 0, 'layer': 'fc1', 'kept': 167, 'size': 620}]

    More masks than the memory holds, a batch at a time:

    >>> sum(batch.num_rows for batch in database.mask_batches(sweep="mine"))
    4

    One ticket, in the shapes of its layers:

    >>> ticket = database.ticket("t0", replicate=1)
    >>> {layer: mask.shape for layer, mask in ticket.items()}
    {'fc1': (20, 31), 'fc2': (10, 20)}

    SQL, with values that are bound to its parameters:

    >>> query = "select layer, count(*) as n from masks where sweep = $name group by 1 order by 1"
    >>> database.sql(query, {"name": "mine"}).to_pylist()
    [{'layer': 'fc1', 'n': 2}, {'layer': 'fc2', 'n': 2}]
    """
    from ticketsweep.store.database import open_database
    from ticketsweep.store.paths import default_storage

    return open_database(uri or default_storage())
