"""Where there is no terminal a long command leaves a line a minute, with the time left."""

from __future__ import annotations

from cos_interp.interp.terminal import Lines, duration, progress_bar


def played(units, total=100):
    """The lines of a command whose units end at these seconds: (second, done)."""
    now, lines = [0.0], []
    told = Lines(lines.append, lambda: now[0])
    for second, done in units:
        now[0] = second
        told.move(done, total, "noise")
    return lines


def test_a_line_a_minute():
    lines = played([(second, second // 10) for second in range(0, 200, 10)])
    assert lines == [
        "noise: 6 of 100, 1 min, about 15 min left",
        "noise: 12 of 100, 2 min, about 14 min left",
        "noise: 18 of 100, 3 min, about 13 min left",
    ]


def test_what_was_on_disk_already_does_not_make_the_rest_look_short():
    lines = played([(1, 90), (60, 90), (119, 90), (120, 91), (300, 92)])
    assert lines[1:] == ["noise: 91 of 100, 2 min, about 9 min left", "noise: 92 of 100, 5 min, about 24 min left"]


def test_nothing_done_and_another_count_are_no_time():
    assert played([(60, 0), (120, 40), (180, 10)]) == [
        "noise: 0 of 100, 1 min",
        "noise: 40 of 100, 2 min, about 1 min left",
        "noise: 10 of 100, 3 min, about 9 min left",
    ]


def test_short_commands_say_nothing(capsys):
    bar, move = progress_bar()  # pytest's output is no terminal
    with bar:
        for done in range(5):
            move(done, 5, "noise")
    assert capsys.readouterr() == ("", "")
    assert duration(59.4) == "59 s" and duration(3600) == "1 h 0 min"
