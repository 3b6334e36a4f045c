"""Masking, as pure functions: what looks classified (`detect`), what is declared classified
(`columns`), what replaces it (`masks`), and how a statement is masked (`sql`).
"""
