"""Dynamic networks: one set of weights, and students of many sizes cut out of it.

``space`` says what can be chosen, ``resnet`` and ``mobilenet`` build the network of a choice,
``network`` holds the shared weights and slices them, ``student`` calibrates, writes and reads
what was cut out; ``model=student`` runs it in campaigns. Training and search: ``progip.students``.
"""
