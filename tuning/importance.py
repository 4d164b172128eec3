"""Which proposed settings mattered: Optuna's importance, from a study's journal of trials that ended."""

from __future__ import annotations

from pathlib import Path

from .study import Study, check_journal

SEED = 0
"""Of the random forest: the same journal gives the same numbers."""

TRIALS = 1000
"""Trials that are looked at, at most: fANOVA's time grows faster than their number."""

WHOLE_FOREST = 250
"""Trials up to which the forest has Optuna's 64 trees; of more it has 16, which give nearly the same shares."""


def importances(study: Study) -> dict[str, float]:
    """Share of the first objective's variance that each setting explains by itself (fANOVA), largest first.

    The variance is that of a random forest fitted to the completed trials, over the settings' ranges. The shares are
    main effects and sum to at most 1: what they leave is what settings explain only together, and noise, which the
    forest follows too. With few trials even noise alone gets large shares.

    The forest has 64 trees up to 250 trials and 16 above. Of more than 1,000 trials it sees 1,000, evenly spaced by
    number, the first and the last among them.

    Settings that only some trials have (`when`) are left out, as Optuna does. Empty when there is no journal, or fewer
    than two completed trials, or no setting took two values: nothing can be said then.

    Raises:
        UserError: the journal is damaged.
    """
    journal = Path(study.path) / "optuna.log"
    if not journal.is_file():
        return {}
    check_journal(journal)
    import optuna
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    if study.name not in optuna.get_all_study_names(storage):
        return {}
    stored = optuna.load_study(study_name=study.name, storage=storage)
    trials = stored.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) > TRIALS:
        trials = [trials[round(place * (len(trials) - 1) / (TRIALS - 1))] for place in range(TRIALS)]
    common = set.intersection(*(set(trial.params) for trial in trials)) if trials else set()
    varied = [name for name in sorted(common) if len({str(trial.params[name]) for trial in trials}) > 1]
    if len(trials) < 2 or not varied or len({(trial.values or [0.0])[0] for trial in trials}) < 2:
        return {}
    seen = optuna.create_study(directions=stored.directions)
    seen.add_trials(trials)
    forest = FanovaImportanceEvaluator(seed=SEED, n_trees=64 if len(trials) <= WHOLE_FOREST else 16)
    # `get_param_importances` would normalise the shares to a sum of 1.
    found = forest.evaluate(seen, varied, target=lambda trial: float(trial.values[0]))
    return {name: float(share) for name, share in found.items()}
