"""How was every figure made? The texts of the folds "Method and equation", by kind of figure."""

from __future__ import annotations

METHODS = {
    "front": (
        "Each chip is offered every layout, batch and format on a grid; for each promise on the time per token its cheapest feasible "
        "layout is kept. A line joins the designs of one family that no other design of it beats in both axes; between two of them it "
        "guides the eye only. Hollow marks are chips that exist, at the promise of the dashed vertical line or as near to it as they come; "
        "their thin lines are their own fronts "
        "(dotted: known from claims only). "
        "Stars are measurements; on the cost axis they stand at the measured throughput and this model's cost of a chip-hour. "
        "Dashed lines use weights below 4 bit."
    ),
    "bars": "Each family's cheapest design at three promises of the headline case; shares in per cent; the whole stands at the right.",
    "bound": "The largest part of the decoding step of each family's cheapest design. Framed: the cheapest family of that promise.",
    "elasticity": (
        "Exact derivatives of the logarithm of the cost at each family's winner, layout held fixed: "
        "after a large change another layout may be cheaper, so that costs rise less and fall more."
    ),
    "probability": (
        "Every uncertain number of the catalogue is drawn from its interval (lognormal, or triangular for shares and one-sided intervals; "
        "low and high are its 5 and 95 % quantiles), all at once; the designs of the fronts are built anew from each draw and choose "
        "anew among the layouts of the fronts. Shared numbers move all families together. Designs are not searched anew, and the error "
        "of the model's form is in it only as far as the fitted constants' intervals carry it."
    ),
    "limits": (
        "Each family's winner at three promises keeps its layout while context and batch vary. Memory is full where weights and cache do "
        "not fit; power binds where the chip would be faster with a higher thermal design power; else the largest part of the time per "
        "token binds (with a p-norm, its share is the elasticity of the time to that resource)."
    ),
    "redesign": (
        "The same samples twice: with the designs of the fronts, and with chips bred anew from them under the drawn values and polished."
    ),
    "flips": (
        "Every assumption is multiplied alone, by up to 100 in both directions. Where the lead of the front's designs changes its sign is "
        "its flip with the designs held (hollow marks). The nearest of them are followed: there, all families that come near are "
        "re-optimised, chips bred anew and polished with exact gradients and every layout, and the front's own designs with capped power "
        "remain open to them. The envelope theorem gives the derivative of both costs, hence a first estimate of the flip; families are "
        "re-optimised again there, and so on until the lead is below 0.2 %, or the multiple known to 1 %. The table says which flips "
        "were followed; the others are those of the front's designs. The three nearest are searched from nothing on both sides. Chips "
        "that exist stay as they are and choose their layouts anew."
    ),
    "regret": "Every design in its best layout for every case, at the headline's promise and owner; without burned-in designs.",
    "bands": "Bands hold 50 and 90 % of the samples, the line is the median; grey lines are the medians of the other panels.",
    "variance": (
        "Sobol indices by Saltelli's design over groups of inputs: the bar is what an input explains alone, the tick what it takes part in."
    ),
}
