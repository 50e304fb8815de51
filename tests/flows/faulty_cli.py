"""The ``tract7dt`` command over real stages, some of which meet trouble, run by tests in a process of its own."""

if __name__ == "__main__":
    import os

    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

    import faulty_stages

    faulty_stages.install()

    from flows.cli import main

    main()
