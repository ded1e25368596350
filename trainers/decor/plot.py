"""The components of an embedding as a picture: how much each holds, and which tokens it belongs to."""

from pathlib import Path

from matplotlib.figure import Figure

from trainers.decor.projection import Components


def plot(found: Components, path: Path, *, shown: int = 12) -> None:
    """Write a figure: singular values and energy above, loadings of every token below.

    Args:
        found: The components.
        path: PNG to write.
        shown: Components to show, strongest first.
    """
    count = min(shown, len(found.s))
    rows = max(4.0, 0.22 * len(found.tokens))
    figure = Figure(figsize=(8, 2.6 + rows), layout="constrained")
    bars, heat = figure.subplots(2, 1, height_ratios=[2.4, rows])
    places = range(count)
    bars.bar(places, found.s[:count].tolist(), color="#4a6a8a")
    bars.set(ylabel="singular value", title="Components of the prompt's embedding", xticks=places)
    share = bars.twinx()
    share.plot(places, (100 * found.energy[:count].cumsum(0)).tolist(), "o-", color="#b4472b", markersize=3)
    share.set(ylabel="energy so far, %", ylim=(0, 103))
    image = heat.imshow(found.loadings[:, :count].numpy(), aspect="auto", cmap="magma", norm="symlog")
    heat.set(xlabel="component", xticks=places, yticks=range(len(found.tokens)))
    heat.set_yticklabels(found.tokens, fontsize=7)
    figure.colorbar(image, ax=heat, label="loading |u s|")
    figure.savefig(path, dpi=100)
