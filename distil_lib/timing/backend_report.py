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
        rows = {
            (row["role"], row["backend"], row["batch"], row["length"]): row for row in found["rows"]
        }
        shapes = list(dict.fromkeys((row["batch"], row["length"]) for row in found["rows"]))
        shape = SHAPE if SHAPE in shapes else shapes[0]
        head = [
            "model",
            "backend",
            *(f"{b} x {n}" for b, n in shapes),
            f"x teacher at {shape[0]} x {shape[1]}",
            "disk MB",
            "memory MB",
            "max diff",
            "equal",
        ]
        head += ["score"] if config["task"] else []
        lines += [
            "",
            f"threads: {threads}; milliseconds by batch x length",
            "",
            f"| {' | '.join(head)} |",
            "|---|---" + "|--:" * (len(head) - 2) + "|",
        ]
        for role, backend in dict.fromkeys((row["role"], row["backend"]) for row in found["rows"]):
            one = record["backends"][role][backend]
            lost, grown = one["difference"], one["memory"]
            cells = [
                role,
                backend,
                *(f"{rows[role, backend, b, n]['ms']['median']:.1f}" for b, n in shapes),
            ]
            gained = rows[role, backend, shape[0], shape[1]]["speedup"]
            cells.append("{median:.2f} ({low:.2f}-{high:.2f})".format(**gained))
            cells += [
                f"{one['bytes'] / 1e6:.1f}",
                f"{grown['resident'] / 1e6:.0f}" if grown else "",
                f"{lost['largest']:.2g}",
                f"{lost['equal']:.1%}",
            ]
            cells += [f"{lost['score']:.2f}"] if config["task"] else []
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            *(f"left out: {name} ({reason})" for name, reason in found["unavailable"].items()),
        ]
    return "\n".join(lines)
