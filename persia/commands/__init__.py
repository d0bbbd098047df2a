"""What the verbs of `persia` do, a module a verb; `persia.cli` holds their options and imports a module when its verb is called."""
