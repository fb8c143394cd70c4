"""What packages say they export is there."""

import importlib
import pkgutil

import lora_detox

PACKAGES = [
    module.name
    for module in pkgutil.walk_packages(lora_detox.__path__, "lora_detox.")
    if module.ispkg
]


def test_every_name_in_all_exists():
    missing, counted = [], 0
    for name in PACKAGES:
        package = importlib.import_module(name)
        names = getattr(package, "__all__", ())
        counted += len(names)
        missing += [f"{name}.{one}" for one in names if not hasattr(package, one)]
    assert missing == []
    assert counted > 100
