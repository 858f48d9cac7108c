"""Is the evaluation broken? One diagnostic a file, each from a context to a result; `suite` names them all."""
