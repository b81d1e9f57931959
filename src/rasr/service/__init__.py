"""Service: restoration over HTTP, with a queue that survives, and a worker that may die.

The web process never imports torch. What a client sends is decoded by small processes under limits of the system;
pictures are restored by one worker process, which is started again when it dies.
"""

from rasr.service.config import ServiceConfig

__all__ = ["ServiceConfig"]
