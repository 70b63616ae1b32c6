"""Learn: placeholder while written."""


def build(shared, tab, judges, policies):
    pass
