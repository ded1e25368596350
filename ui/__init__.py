"""The app in the browser: forms drawn from config classes, runs and jobs; it never imports torch."""
