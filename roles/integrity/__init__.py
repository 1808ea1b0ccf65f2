"""Files that nobody declared or shipped: AIDE's database of what code runs from and of what decides who gets in.

`drift` compares the kit's own files, `dpkg --verify` those of packages; this finds a file that is of neither.
"""

from gatehouse.site import Service

service = Service(
    name="integrity",
    title="Files of nobody (AIDE)",
    packages=("aide", "python3"),
    units=("gatehouse-integrity.timer",),
    user="gatehouse-integrity",
)
