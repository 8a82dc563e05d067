"""Objects of every type, however they came to be, and whatever is done with them."""

import contextvars
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import memlimits
from memlimits._bindings import budgets, contexts
from support import hostile
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]

KINDS = hostile.all_types()


def test_the_types_are_found():
    assert {"memlimits._bindings.buffer.Buffer", "memlimits._bindings.contexts.Opened"} <= set(
        KINDS
    )


@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_object_survives_a_hostile_program(tmp_path, name):
    program = Path(hostile.__file__)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, name],
        cwd=tmp_path,  # some write files
        capture_output=True,
        text=True,
        errors="replace",
        timeout=200,
    )
    last = (done.stdout.splitlines() or ["nothing"])[-1]
    assert (last, done.returncode) == ("survived", 0), (last, done.stderr[-2000:])


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (memlimits.Buffer, r"memlimits\.allocate\(nbytes\)"),
        (memlimits.Budget, r"memlimits\.budget\(name\)"),
        (memlimits.Reservation, r"memlimits\.reserve\(nbytes\)"),
        (budgets.Scope, r"memlimits\.budget\(name\)"),
        (contexts.Opened, "opening a budget or a reservation"),
    ],
)
def test_what_a_function_makes_is_not_made_otherwise(kind, way):
    for args in ((), (1,), ("name", 5)):
        with pytest.raises(TypeError, match=way):
            kind(*args)
        with pytest.raises(TypeError, match=way):
            kind.__new__(kind, *args)
    with pytest.raises(TypeError, match=way):
        kind(nbytes=1)
    with pytest.raises(TypeError, match="not safe"):
        object.__new__(kind)


@pytest.mark.parametrize("name", ["Buffer", "Budget", "Reservation", "limits"])
def test_a_subclass_is_refused(name):
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (getattr(memlimits, name),), {})


@pytest.mark.parametrize(
    "kind",
    [kind for name, kind in sorted(KINDS.items()) if not kind.__flags__ & 1 << 9],  # not of Python
)
def test_a_method_checks_what_it_is_called_on(kind):
    for name, method in vars(kind).items():
        if callable(method) and name != "__new__":
            with pytest.raises(TypeError):
                method(object())


@pytest.mark.parametrize("make", [memlimits.limits, lambda: memlimits.allocate(1)])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_cannot_be_copied_says_so(make, way):
    with pytest.raises(TypeError, match=r"cannot pickle '.*(limits|Buffer)' object"):
        way(make())


def test_a_fit_can_be_copied():
    fit = memlimits.would_fit(2**62)
    for back in (copy.copy(fit), copy.deepcopy(fit), pickle.loads(pickle.dumps(fit))):
        assert (back.nbytes, back.blocked_by) == (2**62, fit.blocked_by)
        with pytest.raises(AttributeError, match="does not change"):
            back.nbytes = 1


def accounts_variable():
    """As a program finds it that restores the variables of another context."""
    (found,) = [key for key in contextvars.copy_context() if key.name == "memlimits_account"]
    return found


@pytest.mark.parametrize("value", [None, 42, "text", object(), [], memlimits.Buffer])
def test_another_value_in_the_variable_of_budgets_is_no_budget(value):
    def inside():
        with memlimits.budget("outer") as budget:
            variable = accounts_variable()
            token = variable.set(value)
            block = memlimits.allocate(MIB)
            assert budget.active == 0
            assert memlimits.would_fit(MIB)
            assert memlimits.effective_limit().nbytes > 0
            with memlimits.budget("inner", 2 * MIB) as inner, memlimits.allocate(MIB):
                assert inner.active == MIB
            with pytest.raises(RuntimeError, match="opened in another thread or task"):
                budget.close()
            variable.reset(token)
            block.release()
        assert budget.active == 0

    contextvars.copy_context().run(inside)


def test_budgets_can_be_restored_from_another_context():
    """As libraries do that carry variables between threads and tasks."""
    with memlimits.budget("b", MIB) as budget:
        here = contextvars.copy_context()

    def elsewhere():
        variable = next(key for key in here if key.name == "memlimits_account")
        token = variable.set(here[variable])
        with memlimits.allocate(MIB):
            assert budget.active == MIB
            assert memlimits.would_fit(1).blocked_by == "budget"
        variable.reset(token)

    contextvars.Context().run(elsewhere)
    assert budget.active == 0


def test_an_auto_trim_that_was_refused_can_be_closed_and_shown():
    from memlimits.system import AutoTrim

    refused = AutoTrim.__new__(AutoTrim)
    with pytest.raises(TypeError, match="interval must be a number"):
        refused.__init__(None)
    assert repr(refused) == "<memlimits.auto_trim, closed>"
    refused.close()
    with AutoTrim(1000) as running:
        with pytest.raises(RuntimeError, match="runs already, every 1000 s"):
            refused.__init__(5)
        refused.close()
        assert not running.closed
    assert running.closed
