"""From due ids to settled ones: dispatch, retrieve, expire."""
