"""The remote API's own contract, answered from the store: for clients that know no Cavendish."""
