"""Small mistakes put into the mathematics and the run store on purpose, each with the test that must catch it: ``make mutants``.

The tree is copied; in the copy each mistake is made alone, its tests are run, and the file is restored. Tests that pass with
the mistake in place do not test what they say: exit status 1. ``tests/project/test_mutants.py`` keeps the list from rotting.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
# imported once and shared by all runs, which are forks: libraries, and nothing of the tree
SHARED = [
    "torch",
    "pandas",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "diffusers",
    "transformers",
    "pytest",
]
LONGEST = 300  # seconds for one selection


class Mutant(NamedTuple):
    """``old``, which is once in ``file``, becomes ``new``. ``test``: a path for pytest and, behind a blank, what ``-k`` takes."""

    file: str
    breaks: str
    old: str
    new: str
    test: str


ANALYSES, INTERP, PROBES, TASKS = (f"tests/{room}" for room in ("analyses", "interp", "probes", "tasks"))
STORE = f"{ANALYSES}/test_store.py"
# fmt: off
MUTANTS = [Mutant(*line) for line in (
    # --- clean estimates and what a transformer predicts ---
    ("interp/trajectory.py", "the clean estimate adds the velocity",
     "return x_t - sigma * v", "return x_t + sigma * v", f"{ANALYSES}/test_statistics.py clean_estimate"),
    ("interp/trajectory.py", "x0hat of every step is read by the first step's rule",
     "self.run.clean[found].estimate(", "self.run.clean[0].estimate(", f"{INTERP}/test_hooks.py trajectory_is_what"),
    ("interp/run/prediction.py", "the prediction that leads to an x0hat has the other sign",
     "- x0hat) / -self.b", "- x0hat) / self.b", f"{INTERP}/test_prediction.py perfect"),
    ("interp/run/prediction.py", "inverted flow is read as flow",
     "Clean(1.0, sigma if inverted else -sigma, sigma)", "Clean(1.0, -sigma, sigma)", f"{INTERP}/test_prediction.py perfect"),
    ("interp/run/prediction.py", "EDM keeps the noise's share of x_t and not the data's",
     "Clean(data**2 / whole, ", "Clean(sigma**2 / whole, ", f"{INTERP}/test_prediction.py perfect"),
    ("interp/run/prediction.py", "v prediction of states of growing variance, without their scale",
     "Clean(1 / scaled**2, -sigma / scaled, sigma)", "Clean(1 / scaled**2, -sigma, sigma)",
     f"{INTERP}/test_prediction.py perfect"),
    ("interp/run/prediction.py", "v prediction has the sign of its noise turned",
     "return Clean(alpha, -sigma, sigma)", "return Clean(alpha, sigma, sigma)", f"{INTERP}/test_prediction.py perfect"),
    ("interp/run/prediction.py", "epsilon prediction is read without alpha",
     "Clean(1 / alpha, -sigma / alpha, sigma)", "Clean(1.0, -sigma, sigma)", f"{INTERP}/test_prediction.py perfect"),
    ("interp/run/prediction.py", "the noise level of a variance-preserving step is 1 - alpha",
     "return kept**0.5, (1 - kept) ** 0.5", "return kept**0.5, 1 - kept**0.5", f"{INTERP}/test_prediction.py perfect"),
    # --- what is selected ---
    ("interp/selecting.py", "negative numbers are off by one",
     "n + size if n < 0 else n for n", "n + size - 1 if n < 0 else n for n", f"{INTERP}/test_selecting.py whole_numbers"),
    ("interp/selecting.py", "a number that was asked for twice is there twice",
     "tuple(dict.fromkeys(n + size", "tuple(list(n + size", f"{INTERP}/test_selecting.py whole_numbers"),
    ("interp/selecting.py", "a slice may end one beyond the axis",
     "not -size <= stop <= size)", "not -size <= stop <= size + 1)", f"{INTERP}/test_selecting.py no_number_is_refused"),
    ("interp/selecting.py", "axes of a token selection are joined by or",
     "mask &= along.view(", "mask |= along.view(", f"{INTERP}/test_selecting.py token_selection_is_the_same"),
    ("interp/selecting.py", "cells that lie beyond the grid by one are not refused",
     "(cells >= np.array(shape))", "(cells > np.array(shape))", f"{INTERP}/test_selecting.py selects_nothing"),
    ("interp/selecting.py", "a token of cells that do not divide evenly stands for too few",
     "-(-size // mask.shape[axis])", "(size // mask.shape[axis])", f"{INTERP}/test_selecting.py stands_for_its_cells"),
    ("interp/selecting.py", "an address that leaves one axis open means everything",
     "None if all(isinstance(part, slice)", "None if any(isinstance(part, slice)", f"{INTERP}/test_hooks.py token_selectors"),
    # --- patching ---
    ("interp/patching.py", "a patch is put everywhere but where it says",
     "torch.where(mask, given, act)", "torch.where(mask, act, given)", f"{INTERP}/test_replay.py heads"),
    ("interp/patching.py", "a patch acts in both branches",
     "call.step in self.steps and call.branch in self.branches", "call.step in self.steps", f"{INTERP}/test_replay.py spans"),
    ("interp/patching.py", "a patch begins at its last step",
     "return min(self.steps)", "return max(self.steps)", f"{INTERP}/test_replay.py spans"),
    ("interp/patching.py", "a replay runs the patched block, whose result is given, again",
     'return point.layer + (".hook_resid_post" in patch.site)', "return point.layer", f"{INTERP}/test_replay.py spans"),
    ("interp/patching.py", "a donor's x_t is that of its first step",
     "lambda step, branch: self.run.x_t[step]", "lambda step, branch: self.run.x_t[0]", f"{INTERP}/test_replay.py self_patch"),
    ("interp/patching.py", "a donor gives its conditional branch to both",
     "lambda step, branch: self.cache[site, step, branch]", "lambda step, branch: self.cache[site, step]",
     f"{INTERP}/test_replay.py patches_equal"),
    ("interp/patching.py", "a donor of another shape is broadcast without being asked",
     "not (self.broadcast and fits)", "not fits", f"{INTERP}/test_selecting.py donor_of_another_shape"),
    ("interp/patching.py", "a stream that a block does not have is the first one and not the last",
     "for n in range(layer, -1, -1)", "for n in range(layer + 1)", f"{INTERP}/test_replay.py self_patch"),
    ("interp/patching.py", "rows of the second branch are written over those of the first",
     "return [branch * len(self.patches) + row for", "return [row for", f"{INTERP}/test_streams.py ltx2_replays"),
    # --- ensembles, batches, caches, the step clock ---
    ("interp/ensemble.py", "the mean leaves out the third member",
     "mean = members.mean(0, keepdim=True)", "mean = members[:2].mean(0, keepdim=True)",
     f"{ANALYSES}/test_chain_of_steps.py merging_rows"),
    ("interp/ensemble.py", "norm-matched means keep the norm of the mean",
     "return mean / mean.norm().clamp_min(1e-12) * norms", "return mean * norms / norms",
     f"{ANALYSES}/test_chain_of_steps.py merging_rows"),
    ("interp/ensemble.py", "the members part one step too early",
     'calls[0].step <= self.last_step or', 'calls[0].step < self.last_step or',
     f"{ANALYSES}/test_chain_of_steps.py seed_thrice"),
    ("interp/batch.py", "all rows of a batch get the first row's prompt, picture and seed",
     "[call[key] for call in calls]", "[calls[0][key] for call in calls]", f"{INTERP}/test_calls.py single_videos"),
    ("interp/batch.py", "all rows of a batch start from one noise",
     "manual_seed(one) for one in seeds", "manual_seed(seeds[0] or 0) for one in seeds",
     f"{INTERP}/test_hooks.py batch_rows"),
    ("interp/batch.py", "a user's callback may change latents in place",
     "before.shape == after.shape and torch.equal(before, after)", "before.shape == after.shape",
     f"{INTERP}/test_calls.py callback"),
    ("interp/cache_plan.py", "all steps are kept whatever was asked for",
     "return name in self.names and step in self.steps and in_branch", "return name in self.names and in_branch",
     f"{INTERP}/test_hooks.py cache_selects"),
    ("interp/cache_plan.py", "the mean over tokens leaves the text's tokens alone",
     '"token", "text", "audio", "history")', '"token", "audio", "history")', f"{INTERP}/test_selecting.py mean_is_over_tokens"),
    ("interp/cache_plan.py", "the energy of a token is the mean of its channels' sizes",
     "return act.float().norm(dim=along)", "return act.float().abs().mean(dim=along)",
     f"{INTERP}/test_selecting.py norm_is"),
    ("interp/cache_plan.py", "the norm is over the last axis, whatever it is",
     "return act.float().norm(dim=along)", "return act.float().norm(dim=-1)", f"{INTERP}/test_selecting.py norm_is"),
    ("interp/cache.py", "a kept activation is no copy",
     "if key in self.store else act.clone()", "if key in self.store else act", f"{INTERP}/test_cache.py what_is_kept"),
    ("interp/cache.py", "a stack over steps is of the conditional branch",
     "torch.stack([self.store[name, s, branch if branch in mine else None]",
     'torch.stack([self.store[name, s, "cond" if branch in mine else None]', f"{INTERP}/test_cache.py stacked"),
    ("interp/cache_file.py", "the digest of a cache leaves out what each tensor is called",
     'f"{key} {value.dtype} {tuple(value.shape)}', 'f"{value.dtype} {tuple(value.shape)}', f"{INTERP}/test_cache.py damaged"),
    ("interp/run/clock.py", "the second forward of a step counts as the first branch",
     "self.in_turn[min(self.forwards_in_step, 1)]", "self.in_turn[0]", f"{INTERP}/test_calls.py step_clock"),
    ("interp/run/clock.py", "video-to-video steps are read at the first timesteps",
     "return self.left_out + step", "return step", f"{INTERP}/test_family_runs.py video_to_video"),
    ("interp/views.py", "pixel frames a latent frame: rounded down and not to the nearest",
     "size = round(later / groups)", "size = later // groups", f"{INTERP}/test_frames.py enumeration"),
    # --- numbers of experiments ---
    ("analyses/driver/statistics.py", "the interval of a share is that of a mean",
     "return Share(known).number()", "return Mean(known, normal=True).number()", f"{ANALYSES}/test_statistics.py its_kind"),
    ("analyses/driver/statistics.py", "the effect of a patch is how far it moved, whichever way",
     "return float(moved @ direction) / scale", "return float(moved.norm() * direction.norm()) / scale",
     f"{ANALYSES}/test_statistics.py projection"),
    ("analyses/driver/statistics.py", "the re-read share leaves out the last patched step",
     "sigmas[last + 1]) / sigmas[0]", "sigmas[last]) / sigmas[0]", f"{ANALYSES}/test_statistics.py reread"),
    ("analyses/driver/statistics.py", "items without a value count as 0",
     "known = items[~np.isnan(items)]", "known = np.nan_to_num(items)", f"{ANALYSES}/test_statistics.py items"),
    ("analyses/driver/statistics.py", "rows and not items are averaged",
     "rows.groupby(item)[value].mean().to_numpy(float)", "rows[value].to_numpy(float)", f"{ANALYSES}/test_statistics.py items"),
    ("analyses/driver/statistics.py", "paired(): both columns are sorted, so that no item meets itself",
     "mean_number(both[:, 0] - both[:, 1])", "mean_number(np.sort(both[:, 0]) - np.sort(both[:, 1]))",
     f"{ANALYSES}/test_statistics.py paired"),
    ("analyses/driver/statistics.py", "AUC of the negatives",
     "roc_auc_score(labels, scores)", "roc_auc_score(~labels, scores)",
     f"{ANALYSES}/test_statistics.py roc"),
    ("analyses/driver/statistics.py", "entropy in nats",
     "scipy.stats.entropy(counts, base=2)", "scipy.stats.entropy(counts)", f"{ANALYSES}/test_statistics.py entropy"),
    ("tasks/tally.py", "the interval of a share is not the exact one",
     "beta.ppf(tail, successes, n - successes + 1)", "beta.ppf(tail, successes + 1, n - successes + 1)",
     f"{ANALYSES}/test_statistics.py exact_interval"),
    ("analyses/driver/estimates.py", "Newcombe's interval without the correlation of the two outcomes",
     "phi = self._correlation(first, second)", "phi = 0.0", f"{ANALYSES}/test_estimates.py newcombe"),
    ("analyses/driver/estimates.py", "the bootstrap-t interval is not turned around",
     "float(self.value - above * self._error), float(self.value - below * self._error)",
     "float(self.value + below * self._error), float(self.value + above * self._error)", f"{ANALYSES}/test_estimates.py means"),
    ("analyses/driver/findings.py", "what is wholly below the smallest effect is undecided",
     'return "refuted" if high < smallest', 'return "refuted" if high < 0', f"{ANALYSES}/test_rules.py three_zones"),
    ("analyses/driver/rules.py", "twins are not looked at",
     "reached = [twin for twin in twins if twin.n and top(twin) >= number.low]", "reached = list[Number]()",
     f"{ANALYSES}/test_rules.py twin_shows"),
    ("analyses/dossier/multiplicity.py", "the false discovery rate is not held",
     "or q <= RATE or", "or q <= 1 or", f"{ANALYSES}/test_dossier.py among_many"),
    ("tasks/tally.py", "missing videos are left out of the interval",
     'share_interval(status["solved"], len(judged))', 'share_interval(status["solved"], len(judged) - status["missing"])',
     f"{TASKS}/test_tasks.py export"),
    ("analyses/patching/findings.py", "the best cell is chosen on the pairs that it is tested on",
     "best(cells[half != number])", "best(cells[half == number])", f"{ANALYSES}/test_patching.py choosing"),
    ("analyses/patching/findings.py", "the effect is held against the random donor alone, not against the tokens' own share",
     'both[["random", "share"]].max(axis=1)', "both.random", f"{ANALYSES}/test_patching.py own_share"),
    ("analyses/kit/shown.py", "the graded reading is of cells where both answers end alike",
     "(item.cells[-1] != other.cells[-1])", "(item.cells[-1] == item.cells[-1])", f"{ANALYSES}/test_patching.py graded"),
    ("analyses/kit/belief.py", "a candidate of a larger norm is likelier",
     "rows @ _row(x_t) - (1 - sigma) / 2 * rows.square().sum(1)", "rows @ _row(x_t)", f"{ANALYSES}/test_belief.py brute_force"),
    ("analyses/kit/belief.py", "an estimate that shows nothing shows all answers",
     "return mass * effective(", "return effective(", f"{ANALYSES}/test_belief.py how_many"),
    ("analyses/chain_of_steps/forming.py", "a frame that was right once is right to the end",
     "np.logical_and.accumulate(flags[::-1], 0)[::-1]", "flags", f"{ANALYSES}/test_chain_claims.py slopes_by_hand"),
    ("analyses/chain_of_steps/forming.py", "frames that form backwards form together",
     "LARGEST_SLOPE - side * slopes", "LARGEST_SLOPE - slopes", f"{ANALYSES}/test_chain_claims.py one_after_the_other"),
    ("analyses/chain_of_steps/findings.py", "the control of the candidates is not subtracted",
     ' - (found.first_one - found.last_one))', ")", f"{ANALYSES}/test_chain_claims.py by_hand"),
    ("analyses/commitment/measure.py", "the re-noised state has the next step's sigma",
     "renoised(x0hat, run.sigmas[step], noise)", "renoised(x0hat, [*run.sigmas, 0.0][step + 1], noise)",
     f"{ANALYSES}/test_chain_of_steps.py renois"),
    ("analyses/commitment/measure.py", "two readings are the same if neither can be read",
     'or "undecided" in (first.status, second.status)', 'or first.status == second.status == "undecided"',
     f"{ANALYSES}/test_chain_of_steps.py readable_equal"),
    ("analyses/commitment/report.py", "committed at the first step that agrees, whatever comes after it",
     "kept.iloc[:, ::-1].cummin(axis=1).iloc[:, ::-1]", "kept", f"{ANALYSES}/test_chain_of_steps.py committed_step"),
    ("analyses/commitment/findings.py", "any excess over chance is a choice",
     "Mean(over[step] - SHARE * ceiling)", "Mean(over[step])", f"{ANALYSES}/test_commitment.py slow_rise"),
    ("analyses/commitment/findings.py", "a look of the verifier is held against one run",
     'control=table["best of equal compute" if key == "screening" else "single"]', 'control=table["single"]',
     f"{ANALYSES}/test_commitment.py helps_less"),
    ("analyses/kit/screening.py", "of equally good looks the first run is taken",
     "[each == each.max()].mean()", "[each.argmax()]", f"{ANALYSES}/test_chain_of_steps.py screening_maths"),
    ("analyses/self_correction/report.py", "a wrong answer that is read once was held",
     "wrong & same,", "wrong,", f"{ANALYSES}/test_self_correction.py by_hand"),
    ("analyses/self_correction/measure.py", "a video that is unfinished is a wrong answer",
     'str(error).startswith("wrong")', "bool(error)", f"{ANALYSES}/test_self_correction.py that_form"),
    ("analyses/self_correction/report.py", "readings that flicker count as held answers",
     "before.value >= FLICKER", "before.value >= 0", f"{ANALYSES}/test_self_correction.py dealt"),
    ("analyses/swap/findings.py", "a flip counts though a random item's tokens flip as well",
     "PairedShares(flips[PAIR], flips[RANDOM])", "PairedShares(flips[PAIR], 0 * flips[RANDOM])",
     f"{ANALYSES}/test_swap.py random_item"),
    ("analyses/swap/measure.py", "a swap that lasts carries no more than one step",
     'if span == "single" else 1.0', "", f"{ANALYSES}/test_swap.py on_the_organism"),
    ("analyses/recovery/measure.py", "a dose of the donor is a dose of the target",
     "(1 - dose) * own + dose * other", "dose * own + (1 - dose) * other", f"{ANALYSES}/test_recovery.py mix"),
    ("analyses/recovery/report.py", "an answer is back from a step on, though it was lost again later",
     "while at and flags[at - 1]:", "while at and any(flags[:at]):", f"{ANALYSES}/test_recovery.py stays_from"),
    ("analyses/recovery/report.py", "items that are not solved undisturbed count as not recovered",
     "taken = found[found.eligible & found.taken].sort", "taken = found[found.taken].sort",
     f"{ANALYSES}/test_recovery.py findings"),
    ("analyses/recovery/report.py", "runs in which nothing wrong was ever read count as recovered",
     "taken = found[found.eligible & found.taken].sort", "taken = found[found.eligible].sort",
     f"{ANALYSES}/test_recovery.py never_there"),
    ("analyses/kit/perturb.py", "turned noise loses variance",
     "return math.sqrt(1 - dose**2) * old + dose * new", "return (1 - dose) * old + dose * new",
     f"{ANALYSES}/test_noise.py formulas"),
    ("analyses/noise/report.py", "an item's own loss is held against another's",
     'pd.concat([first, second], axis=1, join="inner")', "pd.concat([first, second[::-1].set_axis(second.index)], axis=1)",
     f"{ANALYSES}/test_noise.py by_hand"),
    ("analyses/noise/report.py", "a frame costs less than a step that costs nothing",
     "if top < smallest else None", "if top < 0 else None", f"{ANALYSES}/test_noise.py at_a_frame"),
    ("analyses/noise/measure.py", "a frame is disturbed at the last step, after which nothing is repaired",
     "np.linspace(0, steps - 1, count + 2)[1:-1]", "np.linspace(0, steps - 1, count)", f"{ANALYSES}/test_noise.py same_cells"),
    ("analyses/kit/ablation.py", "a random update of another length than the block's own",
     "drawn * (update.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))", "drawn",
     f"{ANALYSES}/test_layers.py replacements"),
    ("analyses/layers/measure.py", "z-scores are not divided by the spread",
     "centred / spread.clamp_min(1e-30)", "centred", f"{ANALYSES}/test_layers.py contrasts"),
    ("analyses/propagation/cka.py", "linear CKA without centring",
     "(t.double() - t.double().mean(0) for t in (x, y))\n    return _ratio(", "(t.double() for t in (x, y))\n    return _ratio(",
     f"{ANALYSES}/test_propagation.py cka"),
    ("analyses/propagation/cka.py", "the debiased HSIC keeps a term of the biased one",
     "/ ((n - 1) * (n - 2))", "/ (n * n)", f"{ANALYSES}/test_propagation.py cka"),
    ("analyses/kit/attention_maths.py", "the entropy of attention in nats",
     "pattern.clamp_min(1e-30).log2()", "pattern.clamp_min(1e-30).log()", f"{ANALYSES}/test_attention.py entropy"),
    ("analyses/kit/attention_maths.py", "attention that was cut is not given to the rest",
     "kept / total.clamp_min(torch.finfo(kept.dtype).tiny)", "kept", f"{ANALYSES}/test_attention.py knock_out"),
    ("analyses/perception/measure.py", "the lag of motion is counted backwards",
     'at["motion"] - at[name]', 'at[name] - at["motion"]', f"{ANALYSES}/test_perception.py lag"),
    ("analyses/perception/measure.py", "a thing that stayed where it was counts as moved",
     "np.isin(true, classes) & (true != true[:1])", "np.isin(true, classes)", f"{ANALYSES}/test_perception.py by_hand"),
    ("analyses/trajectory/told.py", "an answer that all runs lean to is told by all of them",
     "more = (first[one] - first[other]) - (second[one] - second[other])", "more = first[one] - first[other]",
     f"{ANALYSES}/test_trajectory.py concordance"),
    ("analyses/trajectory/told.py", "what ends unsolved counts as an answer",
     ' or {runs[a]["status"], runs[b]["status"]} != {"solved"}', "", f"{ANALYSES}/test_trajectory.py only_pairs"),
    ("analyses/trajectory/separation.py", "runs with other answers are nearer when they are further apart",
     "means[far] - means[close]", "means[close] - means[far]", f"{ANALYSES}/test_trajectory.py separation"),
    ("analyses/kit/tracks.py", "the place of a hidden object is that of its last sight",
     "np.interp(range(len(found)), at, known[:, axis])",
     "np.array([known[max(k for k, f in enumerate(at) if f <= i), axis] for i in range(len(found))])",
     f"{ANALYSES}/test_memory.py tracks"),
    ("analyses/ensemble/merging.py", "the control of an ensemble keeps the members' norm",
     "_norms(merge(members, combine)) / _norms(members)", "_norms(members) / _norms(members)",
     f"{ANALYSES}/test_ensemble.py merged_norm"),
    ("analyses/ensemble/report.py", "an ensemble is held against single runs alone",
     "single if single.mean() >= scaled.mean() else scaled", "single", f"{ANALYSES}/test_ensemble.py one_scaled_seed"),
    ("analyses/memory/conclusions.py", "one object that carries both is a double dissociation",
     "np.minimum(first, second)", "((first + second) / 2)", f"{ANALYSES}/test_memory.py lost_with_its_own"),
    ("analyses/memory/conclusions.py", "what every covered cell says is read as the hidden object",
     "t.hidden - t.bare", "t.hidden", f"{ANALYSES}/test_memory.py every_covered_cell"),
    ("analyses/kit/halves.py", "a place is tested on the items that chose it",
     "there & ~rows.problem.isin(choosing)", "there & rows.problem.isin(choosing)",
     f"{ANALYSES}/test_memory.py planted_matching"),
    # --- probes ---
    ("probes/solvers.py", "coefficients in raw units forget the mean that was taken away",
     "found.intercept - coef @ found.mean", "found.intercept", f"{PROBES}/test_probes.py penalty_is_scikit"),
    ("probes/solvers.py", "the nearest class mean is the one with the largest product",
     "2 * means, -(means**2).sum(1)", "2 * means, 0 * (means**2).sum(1)", f"{PROBES}/test_probes.py nearest_mean"),
    ("probes/solvers.py", "the penalty is its own inverse",
     "return LogisticRegression(C=1 / strength,", "return LogisticRegression(C=strength,",
     f"{PROBES}/test_probes.py penalty_is_scikit"),
    ("probes/splits.py", "clips lie on both sides of a split",
     "splitter.split(blank, y, clip) if len(test)", "splitter.split(blank, y, np.arange(len(y))) if len(test)",
     f"{PROBES}/test_probes.py splits_keep"),
    ("probes/crossval.py", "a probe is tested on what it was fitted on",
     "made.fit(X[train], y[train], clip[train])", "made.fit(X, y, clip)", f"{PROBES}/test_probes.py no_clip_is_predicted"),
    ("probes/crossval.py", "the majority is counted in the rows that it is tested on",
     "np.unique(question.y[train], return_counts=True)", "np.unique(question.y[test], return_counts=True)",
     f"{PROBES}/test_probes.py majority_is_that"),
    ("probes/strength.py", "the penalty is chosen on rows of clips that it was fitted on",
     "ShuffleSplit if groups is None else GroupShuffleSplit", "ShuffleSplit", f"{PROBES}/test_probes.py chosen_on_whole_clips"),
    ("probes/splits.py", "labels without meaning are the labels",
     "return y[rng.permutation(len(y))]", "return y", f"{PROBES}/test_probes.py shuffled_labels"),
    ("probes/scoring.py", "accuracy is not balanced over classes",
     "return recall.sum(-1) / np.maximum((counts > 0).sum(-1), 1)",
     "return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))", f"{PROBES}/test_probes.py scores_by_hand"),
    ("probes/scoring.py", "R2 against 0 and not against the mean",
     "(squares - total**2 / np.maximum(count, 1))", "squares", f"{PROBES}/test_probes.py scores_by_hand"),
    ("probes/scoring.py", "resamples that lost a class count",
     "return np.where(lost, np.nan, score(", "return np.where(lost & False, np.nan, score(",
     f"{PROBES}/test_inputs_of_probes.py resample"),
    ("probes/roles.py", "what is read worse than its control counts against a layer",
     "weight = np.maximum(by_layer, 0)", "weight = by_layer", f"{PROBES}/test_probes.py scores_by_hand"),
    ("probes/use.py", "an exchange acts at all tokens",
     "* tokens.to(act.device)[..., None]", "* (tokens | True).to(act.device)[..., None]", f"{PROBES}/test_probes.py exchange"),
    ("probes/targets.py", "cells that never change are consolidated too",
     "(cells[-1] != cells[0]) & (cells[0] >= 0)", "cells[0] >= 0", f"{PROBES}/test_targets.py labels_stay"),
    ("analyses/probing/findings.py", "the order in depth is of scores, without their control",
     "scored(depth.score, times) - scored(depth.control, times)", "scored(depth.score, times)",
     f"{ANALYSES}/test_probe_analysis.py position"),
    ("analyses/probing/findings.py", "pairs in which the probe reads nothing count",
     "use[use.told.astype(float) > TOLD]", "use[use.told.astype(float) > -1]", f"{ANALYSES}/test_probe_analysis.py told"),
    ("analyses/probing/findings.py", "the dose is the whole, whatever the control leaves",
     "and share > KEPT)", "and share > -1)", f"{ANALYSES}/test_probe_analysis.py dose"),
    ("probes/use.py", "the control of an erasure has a dose of its own",
     "away * dose / away.norm(dim=-1, keepdim=True).clamp_min(1e-12)", "away", f"{PROBES}/test_probes.py erasing"),
    # --- verifiers ---
    ("tasks/maze.py", "an agent may jump",
     "if any(b not in grid.neighbours(*a) for a, b in zip(walk, walk[1:], strict=False)):", "if not walk:",
     f"{TASKS}/test_tasks.py maze_errors"),
    ("tasks/maze.py", "a trail may have gaps",
     "if not np.array_equal(cells == TRAIL, expected == TRAIL):", "if (cells[-1] == WALL).all():",
     f"{TASKS}/test_tasks.py maze_errors"),
    ("tasks/bounce.py", "the ball may look anywhere",
     "if any(cells[f][at] != item.cells[f][at] for f, at in enumerate(path)):", "if not path:",
     f"{TASKS}/test_tasks.py bounce_errors"),
    ("tasks/occlusion.py", "another object may come back",
     "if place != expected:", "if place and place != expected:", f"{TASKS}/test_tasks.py occlusion_errors"),
    ("tasks/place.py", "an object may move late",
     "if steps != [1] * shortest + [0] * (len(steps) - shortest):", "if sum(steps) != shortest:",
     f"{TASKS}/test_tasks.py place_errors"),
    ("tasks/base.py", "a right answer that both items have is the target's",
     "if verdict.answer in item.answers and not set(item.answers) & set(other.answers):", "if verdict.answer in item.answers:",
     f"{TASKS}/test_tasks.py outcomes"),
    ("tasks/reader.py", "an even blend of two sprites can be read",
     "MAX_SHARE = 0.3", "MAX_SHARE = 0.6", f"{TASKS}/test_tasks.py average"),
    # --- what a run is ---
    ("interp/identity.py", "a model is its names and shapes, whatever its weights",
     "update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())", "pass",
     f"{ANALYSES}/test_analyses_face.py known_by_its_content"),
    ("analyses/driver/identity.py", "a run is continued with other weights",
     "if was.get(part) != now.get(part))", "if part not in now)", f"{STORE} what_changed"),
    ("analyses/driver/identity.py", "a run is continued with fewer items",
     " and now >= was", "", f"{STORE} what_changed"),
    ("analyses/driver/identity.py", "a run is continued with a file of another content",
     "if was.get(place) != now.get(place):", "if (place in was) != (place in now):", f"{STORE} another_content"),
    ("analyses/driver/identity.py", "versions are accepted without being asked",
     "return found if accept_versions else", "return found if not accept_versions else", f"{STORE} what_changed"),
    # --- the run store ---
    ("interp/files.py", "seals are not checked",
     "return hashlib.sha256(blank).hexdigest().encode() == held", "return len(held) == 64", f"{STORE} every_byte"),
    ("interp/files.py", "a file's digest is that of its name",
     'return hashlib.file_digest(handle, "sha256").hexdigest()', "return hashlib.sha256(path.name.encode()).hexdigest()",
     f"{STORE} every_byte"),
    ("interp/files.py", "a file is written in place and not renamed",
     "temporary.replace(path)", "path.write_bytes(data), temporary.unlink()", f"{STORE} atomic"),
    ("interp/files.py", "a write that failed leaves its half behind",
     "temporary.unlink(missing_ok=True)", "pass", f"{STORE} atomic"),
    ("interp/files.py", "the digest of a model folder leaves out its weights",
     'p.suffix in {".safetensors", ".json"}', 'p.suffix in {".json"}', f"{INTERP}/test_values.py held_to_its_card"),
    ("analyses/driver/store.py", "the seal of a unit is not checked",
     "        if is_intact(data):\n            return data if self._own(unit, data) else None",
     "        if True:\n            return data",
     f"{STORE} damaged_unit"),
    ("analyses/driver/store.py", "units of another run are taken",
     'return said.get("unit") == unit and said.get("run") == self._run()', 'return said.get("unit") == unit',
     f"{STORE} another_name"),
    ("analyses/driver/store.py", "units of another name are taken",
     'return said.get("unit") == unit and said.get("run") == self._run()', 'return said.get("run") == self._run()',
     f"{STORE} another_name"),
    ("analyses/driver/store.py", "a run that was interrupted is lost to any other command",
     'held.get("status") == "failed"', 'held.get("status") != "complete"', f"{STORE} interrupted"),
    ("analyses/driver/store.py", "--fresh clears a folder with something else in it",
     "if fresh and foreign:", "if fresh and not foreign:", f"{STORE} fresh"),
    ("analyses/driver/store.py", "clearing deletes what is not the run's",
     "for name in manifest.own(self.folder, self.parts):", "for name in manifest.entries(self.folder):", f"{STORE} removed"),
    ("analyses/driver/store.py", "what a killed write left stays",
     "if is_leftover(Path(name)):", "if not Path(name).name:", f"{STORE} killed_write"),
    ("analyses/driver/store.py", "units made of others stay when the run has grown",
     'if held is not None and held["config"] != asked["config"]:', 'if held is not None and held["config"] == asked["config"]:',
     f"{STORE} grow"),
    ("analyses/driver/store.py", "files of an earlier page stay",
     "for name in set(before) - set(files):", "for name in set(before) & set():", f"{STORE} drawn_again"),
    ("analyses/driver/store.py", "a changed file of a finished run is read",
     "if hashlib.sha256(data).hexdigest() != wanted:", "if wanted is None:", f"{STORE} changed_file"),
    ("analyses/driver/manifest.py", "the manifest is not compared with its digest",
     'if root(lines) != facts.get("root"):', "if not lines:", f"{STORE} every_byte"),
    ("analyses/driver/manifest.py", "files are there, whatever is in them",
     "elif digest(folder / name) != sha:", "elif not sha:", f"{STORE} every_byte"),
    ("analyses/driver/manifest.py", "files may be added to a run",
     "for name in sorted(there - {*wanted, *LISTS}):", "for name in sorted(there & set()):", f"{STORE} every_byte"),
    ("analyses/driver/lock.py", "a lock of another machine is never taken over",
     "return time.time() - (folder / OWNER).stat().st_mtime < SILENT", "return (folder / OWNER).is_file()",
     f"{STORE} another_machines"),
    ("analyses/driver/lock.py", "a writer gives no sign of life",
     "os.utime(self.folder / OWNER)", "pass", f"{STORE} writers_heart"),
    ("analyses/driver/lock.py", "a writer that was taken over writes on",
     'if held is None or held.get("token") != self.token:', "if held is None:", f"{STORE} taken_over"),
    ("analyses/driver/lock.py", "a writer that was taken over signs the other one off",
     'if (owner(self.folder) or {}).get("token") == self.token:', "if owner(self.folder):", f"{STORE} taken_over"),
)]
# fmt: on


# --- the copy ------------------------------------------------------------------------------------------------------------


def copied(folder: Path) -> Path:
    """The tree as it stands, without what git ignores; links to the rooms stay links."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():  # one that was deleted and not yet committed is still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def mutated(tree: Path, mutant: Mutant) -> bytes:
    """Make a mistake in the copy. Returns the file as it was."""
    path = tree / mutant.file
    before = path.read_bytes()
    text = before.decode()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file} holds {text.count(mutant.old)} times, and should hold once: {mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new))
    return before


# --- runs of pytest ------------------------------------------------------------------------------------------------------


def passes(tree: Path, test: str, log: Path) -> bool:
    """Whether a selection of tests passes in the copy, in a process of its own. What pytest says is left in ``log``.

    SystemExit where no test was run: a mistake that cannot be imported is caught by anything, and says nothing.
    """
    process = CONTEXT.Process(target=_pytest, args=(str(tree), test, str(log)))
    process.start()
    process.join(LONGEST)
    if process.is_alive():  # a mistake that never ends is caught, too
        process.kill()
        process.join()
    elif process.exitcode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{log.read_text()}\n{test} could not be run")
    return process.exitcode == pytest.ExitCode.OK


def _pytest(tree: str, test: str, log: str) -> None:
    """In the fork: pytest over the copy's tests with the copy's modules."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = f"{tree}/src"
    sys.dont_write_bytecode = True  # a mistake of the file's own length within one second would look like the file
    ours = (ROOT, ROOT / "src", ROOT / "tests")
    sys.path[:] = [f"{tree}/src", f"{tree}/tests", *(place for place in sys.path if Path(place).resolve() not in ours)]
    path, _, only = test.partition(" ")
    sys.exit(pytest.main([path, *(["-k", only] if only else []), "-x", "-q", "-p", "no:cacheprovider"]))


CONTEXT = multiprocessing.get_context("forkserver")


# --- the command ---------------------------------------------------------------------------------------------------------


def check_unmutated(tree: Path, chosen: list[Mutant], log: Path) -> None:
    """SystemExit where a selection does not pass as the tree stands: then its failing would say nothing."""
    by_file: dict[str, set[str]] = {}
    for mutant in chosen:
        path, _, only = mutant.test.partition(" ")
        by_file.setdefault(path, set()).add(only)
    for path, names in by_file.items():
        if not passes(tree, f"{path} {' or '.join(sorted(names))}", log):
            raise SystemExit(f"{log.read_text()}\n{path} does not pass without a mutant")


def survives(tree: Path, mutant: Mutant, log: Path) -> bool:
    before = mutated(tree, mutant)
    try:
        return passes(tree, mutant.test, log)
    finally:
        (tree / mutant.file).write_bytes(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose file, test or description holds this text")
    asked = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if asked in f"{mutant.file} {mutant.test} {mutant.breaks}"]
    if not chosen:
        parser.error(f"no mutant has {asked!r} in its file, test or description")
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    CONTEXT.set_forkserver_preload(SHARED)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tree, log = copied(Path(folder).resolve() / "tree"), Path(folder) / "log"
        check_unmutated(tree, chosen, log)
        for number, mutant in enumerate(chosen, 1):
            started = time.monotonic()
            found = "SURVIVED" if survives(tree, mutant, log) else "caught"
            rows.append((found, mutant))
            print(f"{number:3}/{len(chosen)} {found:8} {time.monotonic() - started:5.1f} s  {mutant.breaks}", flush=True)
    print()
    for found, mutant in sorted(rows, key=lambda row: (row[0], row[1].file)):
        print(f"{found:8}  {mutant.file:36}  {mutant.breaks}\n{'':10}{mutant.test}")
    caught = sum(found == "caught" for found, _ in rows)
    print(f"{caught} of {len(rows)} caught")
    return 0 if caught == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
