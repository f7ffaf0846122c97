from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_interp.interp.address import Address, AddressError, chosen

small = st.integers(-20, 20)
index = st.one_of(
    small.map(lambda n: (n,)),
    st.lists(small, min_size=2, max_size=4).map(tuple),
    st.tuples(st.none() | small, st.none() | small, st.none() | st.sampled_from([-2, -1, 1, 3])).map(lambda t: slice(*t)),
)
name = st.sampled_from(["hook_x_t", "blocks.3.attn.hook_z", "blocks.*.hook_resid_post", "*"])
addresses = st.builds(
    Address, name, step=st.none() | index, branch=st.sampled_from([None, "cond", "uncond"]), head=st.none() | index,
    expert=st.sampled_from([None, "transformer", "transformer_2"]), frame=st.none() | index, row=st.none() | index,
    col=st.none() | index,
)  # fmt: skip


@given(addresses)
def test_writing_and_reading_are_inverse(address):
    assert Address.parse(str(address)) == address


@given(st.text(max_size=40))
def test_any_text_parses_or_points_at_a_character(text):
    try:
        Address.parse(text)
    except AddressError as error:
        assert 0 <= error.position <= len(text)
        assert "^" in str(error)


def test_the_example_of_the_documentation():
    found = Address.parse("blocks.3.attn.hook_z @ step=4:8, branch=cond, head=2, frame=1")
    assert found == Address("blocks.3.attn.hook_z", step=slice(4, 8, None), branch="cond", head=(2,), frame=(1,))
    assert [k for k in range(20) if found.selects(step=k, steps=20, branch="cond", expert="transformer")] == [4, 5, 6, 7]
    assert not found.selects(step=5, steps=20, branch="uncond", expert="transformer")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0), ("blocks.3 step=4", 9), ("hook_x_t @ stpe=4", 11), ("hook_x_t @ step", 15), ("hook_x_t @ step=", 16),
        ("hook_x_t @ step=4,", 18), ("hook_x_t @ step=4, step=5", 19), ("hook_x_t @ branch=con", 18),
        ("hook_x_t @ step=[1,", 19), ("hook_x_t @ step=1 2", 18), ("hook_x_t @ step=0:4:0", 20),
    ],
)  # fmt: skip
def test_errors_point_at_the_character(text, position):
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert caught.value.position == position


@given(index, st.integers(1, 25))
def test_chosen_positions_are_those_of_python_indexing(index, length):
    numbers = list(range(length))
    if isinstance(index, slice):
        assert chosen(index, length) == numbers[index]
    else:
        assert chosen(index, length) == [numbers[n] for n in index if -length <= n < length]
