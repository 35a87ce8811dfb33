"""What the tasks of time series share: the model is built for the data, and its card is kept with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.errors import UserError
from ...core.training.card_task import CardTask
from ..card import TimeSeriesCard


class TimeSeriesTask(CardTask[TimeSeriesCard]):
    """A task of series.

    Args:
        model, options, pretrained, optimizer, schedule, finetuning: as for `CardTask`.
    """

    card_type = TimeSeriesCard

    def changed_fields(self, config: Any, fitting: Mapping[str, Any]) -> dict[str, Any]:
        """Return nothing: a pretrained forecaster is taken as it is.

        Raises:
            UserError: it reads other covariates than the data has.
        """
        for name in ("past_covariates", "future_covariates", "static_covariates"):
            if name in fitting and fitting[name] != getattr(config, name, 0):
                raise UserError(
                    f"{self.pretrained}: reads {getattr(config, name, 0)} {name}, the data has {fitting[name]}; leave "
                    "them out or train a new model"
                )
        return {}
