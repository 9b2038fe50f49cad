"""What fits on which nodes, and how fast a dead address fails."""

import itertools
import socket
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feinfn.errors import UserError
from mhiflab.cluster import connect
from mhiflab.cluster.connect import check_answers, connected, selector, trial_request
from mhiflab.cluster.fit import Node, fit, workers_on
from mhiflab.study.spec import Resources

SMALL, LARGE = Node("small", 2, id="s"), Node("large", 8, 2, 24.0, id="l")


def brute(workers: int, cpus: int, gpus: float, nodes: list[Node]) -> int:
    """Return the most trials for which some placement exists, by trying placements one by one.

    Every GPU is its own bin, as in Ray: a worker takes a share of one, or whole ones.
    """
    bins = [(n.cpus, (1.0,) * int(n.gpus)) for n in nodes]

    def takes(free: tuple[float, tuple[float, ...]]):
        left = free[0] - cpus
        if left < 0:
            return
        if gpus == 0:
            yield left, free[1]
        elif gpus < 1:
            for i, g in enumerate(free[1]):
                if g >= gpus - 1e-9:
                    yield left, (*free[1][:i], g - gpus, *free[1][i + 1 :])
        else:
            whole = [i for i, g in enumerate(free[1]) if g == 1.0]
            for chosen in itertools.combinations(whole, int(gpus)):
                yield left, tuple(0.0 if i in chosen else g for i, g in enumerate(free[1]))

    seen: dict = {}

    def most(state: tuple) -> int:
        if state not in seen:
            seen[state] = max(
                (
                    1 + most((*state[:i], after, *state[i + 1 :]))
                    for i, free in enumerate(state)
                    for after in takes(free)
                ),
                default=0,
            )
        return seen[state]

    return most(tuple(bins)) // max(workers, 1)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.25, 0.4, 0.5, 0.6, 1.0, 2.0]),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=3),
)
def test_fit_equals_brute_force_and_its_advice_fits(workers, cpus, gpus, shapes):
    nodes = [Node(f"n{i}", c, g, id=f"n{i}") for i, (c, g) in enumerate(shapes)]
    plain = [n for n in nodes if not n.gpus]
    usable = plain if not gpus and brute(workers, cpus, 0, plain) else nodes
    wanted = Resources(workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)
    expected = brute(workers, cpus, gpus, usable)
    if expected:
        found = fit(wanted, nodes)
        assert found.at_once == expected
        assert set(found.avoid) == {n.id for n in nodes} - {n.id for n in usable}
        return
    with pytest.raises(UserError, match="would fit: at most") as refused:
        fit(wanted, nodes)
    if "most workers: " in str(refused.value):
        text = str(refused.value).split("at most workers: ")[1].split(";")[0]
        count, most = text.split(" with cpus_per_worker: ")
        advised = replace(wanted, workers=int(count), cpus_per_worker=float(most))
        assert fit(advised, nodes).at_once >= 1
        with pytest.raises(UserError):
            fit(replace(advised, workers=int(count) + 1), nodes)


def test_a_request_that_never_fits_says_what_would():
    with pytest.raises(
        UserError, match=r"the largest with 8 CPUs.* at most workers: 5 with cpus_p"
    ):
        fit(Resources(workers=9, cpus_per_worker=2), [SMALL, LARGE])
    with pytest.raises(UserError, match="at most workers: 1 with cpus_per_worker: 8"):
        fit(Resources(cpus_per_worker=16), [SMALL, LARGE])
    with pytest.raises(UserError, match="at most gpus_per_worker: 2"):
        fit(Resources(gpus_per_worker=3), [SMALL, LARGE])
    with pytest.raises(UserError, match="a whole number, or a share of one GPU"):
        fit(Resources(gpus_per_worker=1.5), [LARGE])


def test_trials_without_gpus_leave_nodes_with_gpus_alone_where_they_can():
    assert fit(Resources(workers=1), [SMALL, LARGE]).avoid == ("l",)
    spread = fit(Resources(workers=3), [SMALL, LARGE])
    assert (spread.at_once, spread.avoid) == (3, ())


def test_memory_hint_becomes_a_share_of_the_smallest_gpu_that_is_large_enough():
    nodes = [SMALL, LARGE, Node("old", 8, 1, 7.9, id="o"), Node("new", 8, 1, 79.0, id="n")]
    hint = Resources(gpu_memory_gib=8)
    found = fit(hint, nodes)
    assert found.resources.gpus_per_worker == 0.3333
    assert found.resources.gpu_memory_gib is None
    assert (found.at_once, found.avoid) == (9, ("s", "o"))
    assert fit(replace(hint, gpu_memory_gib=24), nodes).resources.gpus_per_worker == 1
    pair = replace(hint, gpus_per_worker=2)
    assert fit(pair, nodes).at_once == 1
    with pytest.raises(UserError, match=r"the largest GPU has 79\.0 GiB"):
        fit(replace(hint, gpu_memory_gib=80), nodes)
    with pytest.raises(UserError, match="no node has a GPU"):
        fit(hint, [SMALL])
    with pytest.raises(UserError, match="gpu_memory_gib: found 8"):
        Resources(gpu_memory_gib=8, gpus_per_worker=0.5)


def test_shares_are_counted_as_ray_counts_them():
    assert workers_on(Node("n", 0.3), Resources(cpus_per_worker=0.1)) == 3
    assert workers_on(Node("n", 9, 1), Resources(gpus_per_worker=1 / 3)) == 3


def test_where_a_trial_asks_for_its_place():
    assert selector(()) == {}
    alone = trial_request(Resources(workers=0, gpus_per_worker=0.5), ("a", "b"))
    assert alone.bundles == [{"CPU": 1.0, "GPU": 0.5}]
    assert alone._kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(a,b)"}]
    driver = trial_request(Resources(workers=2), ("a",))
    assert driver.bundles == [{"node:__internal_head__": 0.0001}]


def test_a_dead_address_fails_within_a_minute(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        open_port = silent.getsockname()[1]
        for address, reason in (
            ("127.0.0.1:1", "refused"),
            (f"127.0.0.1:{open_port}", "not Ray's"),
            ("nonsense", "no such port"),
            ("ray://127.0.0.1:10001", "expected HOST:PORT"),
        ):
            monkeypatch.setenv("RAY_ADDRESS", address)
            started = time.monotonic()
            with pytest.raises(UserError, match=reason), connected():
                pass
            # Ray itself would take minutes; on a busy machine loading it takes some of these.
            assert time.monotonic() - started < 60


def test_time_to_load_ray_is_not_taken_for_silence(monkeypatch):
    monkeypatch.setattr(connect, "ANSWER_S", 0.5)
    monkeypatch.setattr(connect, "PROBE_PROGRAM", "import time; time.sleep(1)")
    with socket.create_server(("127.0.0.1", 0)) as slow:
        check_answers(f"127.0.0.1:{slow.getsockname()[1]}")


def test_no_answer_at_all_is_told(monkeypatch):
    def slow(*args, timeout, **options):
        raise TimeoutError(f"timed out after {timeout:g} s")

    monkeypatch.setattr(socket, "create_connection", slow)
    with pytest.raises(UserError, match="timed out after 4 s"):
        check_answers("10.255.255.1:6379")


def test_a_study_that_never_fits_fails_before_anything_is_recorded(mhiflab, write_study, tmp_path):
    done = mhiflab("run", write_study(base={"resources": {"cpus_per_worker": 999}}, cases={}))
    assert done.returncode == 1
    assert "would fit: at most workers: 1 with cpus_per_worker: " in done.stderr
    assert not (tmp_path / "lab" / "mlflow.db").exists()
