"""A page in a browser: what a person does with it, and what it must never do."""

import re
import time
from pathlib import Path

DESKTOP, PHONE = (1280, 900), (390, 844)
_TEXT_COLOURS = """
    const behind = (one) => {
      for (; one; one = one.parentElement) {
        const colour = getComputedStyle(one).backgroundColor;
        if (!colour.endsWith(", 0)")) return colour;
      }
      return "rgb(255, 255, 255)";
    };
    const seen = new Map();
    for (const one of document.body.querySelectorAll("*")) {
      const texts = Array.from(one.childNodes).filter((node) => node.nodeType === 3);
      if (one.closest("svg, script") || !texts.some((node) => node.data.trim())) continue;
      if (!one.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
      seen.set(getComputedStyle(one).color + " on " + behind(one), one.outerHTML.slice(0, 80));
    }
    return Array.from(seen.entries());
"""


class Browser:
    """Headless Chromium with a page from disk.

    Args:
        driver: of Selenium.
    """

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, size=DESKTOP, *, dark=False):
        """Open a file, or an address, as a screen of this size shows it."""
        self.command("Emulation.setEmulatedMedia", features=[_dark(dark)])
        self.resize(size)
        self.driver.get_log("browser")
        self.driver.get(path if str(path).startswith("http") else Path(path).as_uri())
        end = time.monotonic() + 60
        while self.run("return document.readyState") != "complete":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.1)
        return self

    def resize(self, size):
        """Another screen; a phone's has touch and its own viewport."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )

    def command(self, name, **values):
        """A command of the developer tools."""
        return self.driver.execute_cdp_cmd(name, values)

    def run(self, script, *given):
        """The value of a piece of JavaScript."""
        return self.driver.execute_script(script, *given)

    def all(self, selector):
        """Every element that is shown."""
        return self.run(
            "return Array.from(document.querySelectorAll(arguments[0]))"
            ".filter(one => one.checkVisibility({visibilityProperty: true}))",
            selector,
        )

    def one(self, selector):
        """The first element that is shown."""
        return self.all(selector)[0]

    def texts(self, selector):
        """What a person reads in them."""
        return [one.text for one in self.all(selector)]

    def unfold(self):
        """Open everything that is folded."""
        self.run("for (const box of document.querySelectorAll('details')) box.open = true")

    def errors(self):
        """Everything that the page had to complain about."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses that the page fetched, beside itself."""
        return self.run("return performance.getEntriesByType('resource').map(one => one.name)")

    def overflow(self):
        """Pixels by which the page is wider than the screen."""
        return self.run(
            "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
        )

    def seconds_to_open(self, path):
        """Processor seconds of a page's thread from its begin to its load event.

        What a person waits for where nothing else runs: other work on the machine counts nothing.
        """
        self.command("Performance.enable", timeDomain="threadTicks")
        self.open(path)
        metrics = self.command("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    def contrasts(self):
        """Contrast of each shown text with what is behind it (WCAG 2.2): ratio, colours, where."""
        seen = []
        for pair, where in self.run(_TEXT_COLOURS):
            text, background = (
                [int(number) for number in re.findall(r"\d+", colour)[:3]]
                for colour in pair.split(" on ")
            )
            seen.append((_contrast(text, background), pair, where))
        return seen

    def screenshot(self, path, *, whole=False):
        """The screen as PNG, or the whole page."""
        if whole:
            height = self.run("return document.documentElement.scrollHeight")
            self.resize((self.run("return innerWidth"), min(height, 12000)))
        self.driver.save_screenshot(str(path))


def _contrast(one, other):
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    parts = [part / 255 for part in colour]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _dark(dark):
    return {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
