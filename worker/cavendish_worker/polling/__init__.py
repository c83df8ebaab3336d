"""From due ids to settled ones: dispatch, retrieve (ask, classify, settle), expire."""
