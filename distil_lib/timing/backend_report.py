"""The tables of a comparison of backends."""

SHAPE = (1, 32)  # batch and length at which backends are compared


def report(record: dict) -> str:
    """A table for each count of threads.

    Milliseconds by shape, and how many times as fast as the teacher's eager fp32.
    """
    machine, config = record["machine"], record["configuration"]
    flags, version = ", ".join(machine["flags"]), machine["torch"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores ({flags}); torch {version}",
        f"{config['rounds']} rounds: medians; x teacher: median and lowest to highest round, each "
        "against eager fp32 of that round",
    ]
    for threads, found in record["threads"].items():
        rows: dict[tuple, dict[tuple, dict]] = {}  # by role and backend, then by shape
        for row in found["rows"]:
            shapes = rows.setdefault((row["role"], row["backend"]), {})
            shapes[row["batch"], row["length"]] = row
        shape = SHAPE if SHAPE in shapes else next(iter(shapes))
        head = ["model", "backend", *(f"{batch} x {length}" for batch, length in shapes)]
        head += [f"x teacher at {shape[0]} x {shape[1]}", "disk MB", "memory MB", "max diff"]
        head += ["equal", "score"] if config["task"] else ["equal"]
        lines += [
            "",
            f"threads: {threads}; milliseconds by batch x length",
            "",
            f"| {' | '.join(head)} |",
            "|---|---" + "|--:" * (len(head) - 2) + "|",
        ]
        for (role, backend), shapes in rows.items():
            one = record["backends"][role][backend]
            lost, grown = one["difference"], one["memory"]
            cells = [
                role,
                backend,
                *(f"{row['ms']['median']:.1f}" for row in shapes.values()),
                "{median:.2f} ({low:.2f}-{high:.2f})".format(**shapes[shape]["speedup"]),
                f"{one['bytes'] / 1e6:.1f}",
                f"{grown['resident'] / 1e6:.0f}" if grown else "",
                f"{lost['largest']:.2g}",
                f"{lost['equal']:.1%}",
                *([f"{lost['score']:.2f}"] if config["task"] else []),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        reasons = found["unavailable"].items()
        lines += ["", *(f"left out: {name} ({reason})" for name, reason in reasons)]
    return "\n".join(lines)
