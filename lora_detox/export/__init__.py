"""A finished run -> an adapter folder that plain PEFT loads, checked, maybe pushed."""
