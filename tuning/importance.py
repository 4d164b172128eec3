"""Which proposed settings mattered: Optuna's importance, from a study's journal of trials that ended."""

from __future__ import annotations

from pathlib import Path

from .study import Study, check_journal

SEED = 0
"""Of the random forest: the same journal gives the same numbers."""


def importances(study: Study) -> dict[str, float]:
    """Share of the first objective's variance that each setting explains (fANOVA), largest first.

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
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    if study.name not in optuna.get_all_study_names(storage):
        return {}
    stored = optuna.load_study(study_name=study.name, storage=storage)
    trials = stored.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    common = set.intersection(*(set(trial.params) for trial in trials)) if trials else set()
    varied = [name for name in sorted(common) if len({str(trial.params[name]) for trial in trials}) > 1]
    if len(trials) < 2 or not varied or len({(trial.values or [0.0])[0] for trial in trials}) < 2:
        return {}
    found = get_param_importances(
        stored,
        evaluator=FanovaImportanceEvaluator(seed=SEED),
        params=varied,
        target=lambda trial: float(trial.values[0]),
    )
    return dict(found)
