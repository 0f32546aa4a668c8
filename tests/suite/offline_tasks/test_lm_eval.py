"""lm-eval takes the tasks as they are, with no hub, and scores a model on them."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from suite.evaluation.offline_tasks.catalogue import OFFLINE_TASK_DESCRIPTIONS, OFFLINE_TASKS, TASKS_FOLDER

METRICS = {
    "offline_cloze": {"acc,none"},
    "offline_next_paragraph": {"acc,none"},
    "offline_agreement": {"acc,none"},
}


def evaluate(task: str, score: Any, limit: int | None = None) -> dict[str, Any]:
    """lm-eval's results for a model whose log-likelihoods are `score(context, continuation)`."""
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Scorer(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            scores = [score(*request.args) for request in requests]
            return [(value, value > -1.0) for value in scores]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            raise NotImplementedError

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            raise NotImplementedError

    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    results: dict[str, Any] = lm_eval.simple_evaluate(
        model=Scorer(), tasks=[task], task_manager=manager, bootstrap_iters=0, limit=limit
    )
    return results


def test_names_and_descriptions_are_those_of_the_files() -> None:
    assert sorted(OFFLINE_TASKS) == sorted(path.stem for path in TASKS_FOLDER.glob("*.yaml"))
    assert set(OFFLINE_TASK_DESCRIPTIONS) == set(OFFLINE_TASKS)
    assert all(line and "\n" not in line for line in OFFLINE_TASK_DESCRIPTIONS.values())


def test_names_cost_no_heavy_import() -> None:
    code = (
        "import suite.evaluation.offline_tasks.catalogue, sys; "
        "print({'lm_eval', 'torch', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_agreement_is_scored() -> None:
    from suite.evaluation.offline_tasks.agreement import VERBS, agreement_items

    singular = {f" {verb[0]}" for verb in VERBS}
    results = evaluate("offline_agreement", lambda _, verb: 0.0 if verb in singular else -2.0)
    assert results["results"]["offline_agreement"]["acc,none"] == 0.5
    assert results["n-samples"]["offline_agreement"]["effective"] == len(agreement_items())
    assert results["versions"]["offline_agreement"] == 1.0
    right = {(item.context, item.choices[item.answer]) for item in agreement_items()}
    results = evaluate("offline_agreement", lambda *pair: 0.0 if pair in right else -2.0)
    assert results["results"]["offline_agreement"]["acc,none"] == 1.0


@pytest.mark.model
@pytest.mark.parametrize("task", OFFLINE_TASKS)
class TestHeldOutText:
    def test_the_text_itself_is_right(self, task: str) -> None:
        from suite.data.text_sources import read_documents

        if task == "offline_agreement":
            pytest.skip("not from a text")
        text = "\n\n\n".join(
            read_documents(source, "evaluation").joined for source in ("wiki-sample", "news-sample")
        )
        results = evaluate(task, lambda *pair: 0.0 if "".join(pair) in text else -2.0, limit=100)
        scores = {key: value for key, value in results["results"][task].items() if key in METRICS[task]}
        assert scores == dict.fromkeys(METRICS[task], 1.0)

    def test_chance(self, task: str) -> None:
        results = evaluate(task, lambda *_: -2.0, limit=100)
        expected = {"offline_cloze": 0.0, "offline_next_paragraph": 0.25, "offline_agreement": 0.5}
        assert results["results"][task]["acc,none"] == expected[task]
