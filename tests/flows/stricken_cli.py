"""The ``tract7dt`` command over real stages, one of which meets its end, run by tests in a process of its own."""

if __name__ == "__main__":
    import os

    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

    import stricken_stages

    if " clock " in os.environ.get("STRIKE", ""):
        stricken_stages.turn_the_clock()
    stricken_stages.install()

    from flows.cli import main

    main()
