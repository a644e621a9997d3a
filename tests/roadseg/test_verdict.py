from rich.console import Console

from roadseg.verdict import harm


def test_the_parts_that_lose_most_are_shown_from_the_worst_on():
    parts = {f"/body/{i}/Conv": i / 100 for i in range(10)} | {"/body/": 0.45}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(harm(parts))
    *_, rows = shown.get().partition("part ")
    lines = [line.split() for line in rows.splitlines()[1:]]
    assert lines[:2] == [["/body/", "0.450"], ["/body/9/Conv", "0.090"]]
    assert len(lines) == 10
