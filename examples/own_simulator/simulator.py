"""A simulator of one's own behind a study: it is asked how fast a deployment is, and the study goes on with what it answers.

This one knows a decoding step as so many waves of matrix tiles and reads of memory, one after the other, and leaves the rest to the model.
Instead of that it could start a cycle-accurate simulator and wait for it, or look up measurements.
"""

from __future__ import annotations

import dse

STALL = 1.15  # of every step: what a cycle-accurate simulator might find and the model does not know


def measure(deployment: dse.Deployment) -> dict[str, float] | None:
    """Times of one deployment in seconds; None where it does not work.

    May return any of tpot_s, ttft_s and output_token_per_s_per_chip; what is missing follows from the model.
    """
    model = dse.evaluate(deployment)
    if float(deployment.layout.tp) > 64:
        return None  # no such network
    return {"tpot_s": STALL * float(model.tpot_s)}
