"""`inpage bench`: how fast a model runs in the page, with peers beside it in the same run. CPython only.

results.py is what comes out, driver.py what an engine under test must do, scenarios.py what is asked of it; run.py
makes the engines take turns, compare.py says what two runs tell apart.
"""
