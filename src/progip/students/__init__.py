"""Robust students: trained together as one dynamic network, searched, cut out.

``procedures`` are the losses, ``stages`` says what is opened when, ``training`` goes through the
stages, ``cutting`` makes calibrated students, ``search`` finds them under a cost limit. The
networks: ``progip.models.dynamic``; the command: ``python -m progip students``.
"""
