"""Settings: the `@config` decorator, what every run and every drawing can be told, and their way to and from plain values. No torch."""
