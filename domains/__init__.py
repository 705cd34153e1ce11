"""The adapters: each turns one kind of data into tokens for the shared core, and its hidden states into predictions.

A domain is a package whose `__init__.py` holds `DOMAIN = Domain(__name__)` (domain.py): commands ask this record for
its parts, which lie in modules of fixed names. It imports `core` and never another domain:

    config.py     DataConfig, ModelConfig: plain dataclasses, free of torch
    data.py       Data(DomainData): samples, splits, batches
    adapter.py    Adapter(DomainAdapter): batch -> Tokens -> Transformer -> predictions, loss, metrics
    evaluate.py   evaluate(adapter, data, folder) -> Evaluation: scores beside a baseline, pictures
    predict.py    predict(adapter, source, folder) -> paths: the user's own input
    figures.py    the pictures

and, where it has such a thing,

    convert.py     models of other libraries as adapters, and back
    export.py     export(adapter, position, folder) -> paths: for another library to load
    init_from.py   fitted(adapter, state, spec) -> state: what it can begin with of another run's weights
    explain.py    scenes(adapter, input) -> [Scene]: what the page of `attend explain` draws attention on;
                  example(adapter, data) -> Scene: the same of what the run was not trained on
    training_plots.py picture(adapter, data, path): what is drawn while it trains
"""
