"""What is known about each network beside its code: citation, published figures, licence situation, problems.

No module here imports torch. Honesty labels: *measured* (by running the published code or ours), *published*
(a claim of the authors), *inferred*, *reconstructed* (the source does not say it; a choice that fits what it
does say).
"""

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

__all__ = ["NetworkFacts", "Published"]
