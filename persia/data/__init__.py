"""Data sets: synthetic click logs with a planted model, Criteo's log, UCI Adult; each a stream of numbered batches."""

from persia.data.batch import Bags, Batch, DataError, DataSet, FeatureGroup
from persia.data.opening import open_data

__all__ = ["Bags", "Batch", "DataError", "DataSet", "FeatureGroup", "open_data"]
