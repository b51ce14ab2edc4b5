"""The only SQL. `database.py` owns the engine and the one door (`Store.run`); one file a table, functions of a
connection; schema.py is the metadata that a new database is made from; migrations/ brings an older one up to it.
"""
