"""Features carried to another data set (sec. 4.2, 5.1): the protocol here; linear models and arms beside it."""

from zfjax.transfer.protocol import (
    HELD_OUT,
    NUM_TEST,
    THUMBNAIL,
    Fold,
    average_precision,
    average_precisions,
    duplicates,
    features_of,
    folds,
    held_out,
    highest_correlations,
    mean_average_precision,
    mean_class_accuracy,
    thumbnails,
)

__all__ = [
    "HELD_OUT",
    "NUM_TEST",
    "THUMBNAIL",
    "Fold",
    "average_precision",
    "average_precisions",
    "duplicates",
    "features_of",
    "folds",
    "held_out",
    "highest_correlations",
    "mean_average_precision",
    "mean_class_accuracy",
    "thumbnails",
]
