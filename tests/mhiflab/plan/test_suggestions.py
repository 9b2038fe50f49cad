"""What a search suggests next, from its description and the record alone."""

import math
from dataclasses import replace

from mhiflab.plan.suggest import POPULATION, Suggestion, pareto_front, suggest
from mhiflab.study.search import Range, Search

SPACE = {
    "model.omega_0": Range(log_uniform=(2, 60)),
    "model.scale_0": Range(uniform=(0.5, 20)),
    "model.feat_dim": Range(integer=(2, 9)),
    "model.activation": Range(choice=("gabor", "relu", "sine")),
}
PSNR = {"val_psnr": "max"}


def past(values: dict, objectives: tuple | None, state: str = "done") -> Suggestion:
    """Return a suggestion as an algorithm reads it: its values and their result."""
    return Suggestion(0, ((0, values),), None, "", state, objectives=objectives)


def search(**changes) -> Search:
    return Search(**{"space": SPACE, "objectives": PSNR, "algorithm": "random", **changes})


def test_random_list_is_fixed_by_the_seed_and_grows_at_its_end():
    first = [suggest(search(), i, ()) for i in range(1, 40)]
    assert first == [suggest(search(trials=99), i, [past({}, (1.0,))]) for i in range(1, 40)]
    assert all(one.holds(s[key]) for s in first for key, one in SPACE.items())
    assert len({s["model.omega_0"] for s in first}) == 39
    assert {s["model.feat_dim"] for s in first} == set(range(2, 10))
    assert {s["model.activation"] for s in first} == {"gabor", "relu", "sine"}
    assert all(float(f"{s['model.scale_0']:.6g}") == s["model.scale_0"] for s in first)
    # Every factor is equally likely: half of all draws lie below the geometric mean.
    many = [suggest(search(), i, ())["model.omega_0"] for i in range(1, 401)]
    assert 0.4 < sum(value < math.sqrt(2 * 60) for value in many) / 400 < 0.6
    assert suggest(search(seed=2), 1, ()) != first[0]


def run_on(function, wanted: Search, count: int) -> list[Suggestion]:
    """Return suggestions and their results, as a driver would collect them."""
    told: list[Suggestion] = []
    for index in range(1, count + 1):
        values = suggest(wanted, index, told)
        told.append(past(values, function(values)))
    return told


def valley(values: dict) -> tuple[float]:
    x, y = math.log(values["model.omega_0"] / 7), values["model.scale_0"] - 3
    return (-(x**2) - (y / 10) ** 2,)


def test_tpe_follows_from_the_record_alone_and_beats_random_draws():
    space = {key: SPACE[key] for key in ("model.omega_0", "model.scale_0")}
    guided, blind = search(space=space, algorithm="tpe"), search(space=space)
    told = run_on(valley, guided, 40)
    assert suggest(guided, 41, told) == suggest(replace(guided, trials=99), 41, list(told))
    late = [one.objectives[0] for one in told[20:]]
    drawn = [one.objectives[0] for one in run_on(valley, blind, 40)[20:]]
    assert sum(late) / 20 > sum(drawn) / 20 / 3
    # What is running, failed, or outside the space does not stop it.
    told += [
        past(told[0].values, None, "new"),
        past(told[1].values, None, "failed"),
    ]
    told.append(past({"model.omega_0": 1000.0, "model.scale_0": 3.0}, (5.0,)))
    assert suggest(guided, 44, told)["model.omega_0"] <= 60


def test_nsga2_breeds_new_generations_from_recorded_ones():
    wanted = search(algorithm="nsga2", objectives={**PSNR, "parameters": "min"})
    told = run_on(lambda v: (v["model.scale_0"], v["model.omega_0"]), wanted, 3 * POPULATION)
    first = {one.values["model.omega_0"] for one in told[:POPULATION]}
    assert len(first) == POPULATION
    second = [one.values["model.omega_0"] for one in told[POPULATION : 2 * POPULATION]]
    assert sum(value in first for value in second) > POPULATION // 2


def test_front_holds_what_nothing_else_beats():
    two = search(objectives={**PSNR, "parameters": "min"}, algorithm="tpe")
    points = [(30.0, 10.0), (31.0, 20.0), (29.0, 15.0), (31.0, 30.0), (32.0, 99.0), (32.0, 99.0)]
    assert pareto_front(two, points) == [4, 1, 0]
    assert pareto_front(search(), [(1.0,), (3.0,), (3.0,), (2.0,)]) == [1]
    assert pareto_front(search(objectives={"val_sam": "min"}), [(2.0,), (1.0,)]) == [1]
