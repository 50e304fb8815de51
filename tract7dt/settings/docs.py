"""Print the configuration page: ``python -m tract7dt.settings.docs > docs/configuration.md``."""

import sys

from tract7dt.settings.render import config_markdown

__all__: list[str] = []

if __name__ == "__main__":
    sys.stdout.write(config_markdown())
