"""Draw docs/images/conventions.png: THETA, ELL and Re of a galaxy, on the pixels of a rendered one.

``python docs/draw_conventions.py``
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Ellipse

from tract7dt.types import F8

RE, ELL, THETA = 14.0, 0.5, 35.0
SIZE = 81


def galaxy() -> F8:
    """Exponential profile of half-light semi-major axis RE, axis ratio 1 - ELL, angle THETA."""
    half = SIZE // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    t = np.radians(THETA)
    along, across = x * np.cos(t) + y * np.sin(t), -x * np.sin(t) + y * np.cos(t)
    return np.exp(-1.678 * np.hypot(along, across / (1 - ELL)) / RE)


def main() -> None:
    """Draw and save."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    half = SIZE // 2
    axes.imshow(galaxy() ** 0.5, origin="lower", cmap="gray", extent=(-half - 0.5, half + 0.5) * 2, vmax=1.1)
    axes.add_patch(
        Ellipse((0, 0), 2 * RE, 2 * RE * (1 - ELL), angle=THETA, fill=False, color="#56b4e9", lw=2)
    )
    t = np.radians(THETA)
    a = RE * np.array([np.cos(t), np.sin(t)])
    b = RE * (1 - ELL) * np.array([-np.sin(t), np.cos(t)])
    axes.annotate("", a, (0, 0), arrowprops={"arrowstyle": "->", "color": "#e69f00", "lw": 2})
    axes.annotate("", b, (0, 0), arrowprops={"arrowstyle": "->", "color": "#f0e442", "lw": 2})
    axes.text(*(1.1 * a + [-3, 3]), "a = Re", color="#e69f00", fontsize=12, ha="center")
    axes.text(*(2.2 * b + [-4, 0]), "b = (1 − ELL) Re", color="#f0e442", fontsize=12, ha="center")
    axes.plot([0, 32], [0, 0], color="w", lw=1, ls="--")
    axes.add_patch(Arc((0, 0), 44, 44, theta1=0, theta2=THETA, color="w", lw=1.5))
    axes.text(23.5, 5.5, "THETA", color="w", fontsize=12)
    axes.set(xlabel="x − x of the source [pix]", ylabel="y − y of the source [pix]")
    axes.set_title(f"half of the light: Re = {RE:g} pix, ELL = {ELL:g}, THETA = {THETA:g}°", fontsize=11)
    figure.savefig(Path(__file__).parent / "images" / "conventions.png", dpi=110)


if __name__ == "__main__":
    main()
