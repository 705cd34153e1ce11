"""Accuracy beside the nearest neighbour's, which is what series are usually compared with (Bagnall et al. 2017)."""

from sklearn.neighbors import KNeighborsClassifier

from domains.adapter import Evaluation, Score, mean_metrics


def evaluate(adapter, data, folder, split="test"):
    metrics = mean_metrics(adapter, data.eval_dataloader(split))
    (x, y), (held_x, held_y) = data.parts["train"], data.parts[split]
    nearest = KNeighborsClassifier(1).fit(x.reshape(len(x), -1), y).score(held_x.reshape(len(held_x), -1), held_y)
    return Evaluation([Score("accuracy", metrics["accuracy"], "nearest neighbour", nearest)], metrics)
