"""Runtimes behind one small interface (`rfdetr.benchmark.runtimes.base`)."""
