"""What the place offers that this runs in: the page's JavaScript, the device's capabilities, the artifact's small
files.

Imports `errors`, `format` and `settings`."""
