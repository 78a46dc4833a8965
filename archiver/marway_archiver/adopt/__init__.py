"""Takes over the models of other model servers: what there is, what becomes of it, whether answers stay."""
