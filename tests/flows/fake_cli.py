"""The ``tract7dt`` command over the fake stages, run by tests in a process of its own."""

if __name__ == "__main__":
    import fake_stages

    fake_stages.install()

    from flows.cli import main

    main()
