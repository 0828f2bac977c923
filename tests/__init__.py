"""The tests; they mirror the package, and this file lets them share code: ``from tests.docs.pages import ...``."""
