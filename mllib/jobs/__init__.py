"""The use cases: the only place where the store and the pure code meet. The DAGs and the command line call these."""
