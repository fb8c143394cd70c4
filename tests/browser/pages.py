"""A page in a browser: what a person does with it, and what it must never do."""

from pathlib import Path

DESKTOP, PHONE = (1280, 900), (390, 844)


class Browser:
    """Headless Chromium with a page from disk.

    Args:
        driver: of Selenium.
    """

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, size=DESKTOP, *, dark=False):
        """Open a file as a screen of this size shows it."""
        self.command("Emulation.setEmulatedMedia", features=[_dark(dark)])
        self.resize(size)
        self.driver.get_log("browser")
        self.driver.get(Path(path).as_uri())
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

    def screenshot(self, path, *, whole=False):
        """The screen as PNG, or the whole page."""
        if whole:
            height = self.run("return document.documentElement.scrollHeight")
            self.resize((self.run("return innerWidth"), min(height, 12000)))
        self.driver.save_screenshot(str(path))


def _dark(dark):
    return {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
