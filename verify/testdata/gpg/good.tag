object 099021f1f78d8008ba0f16b87889d3705da1763c
type commit
tag v1
tagger Bob <bob@example.com> 1769904000 +0000

a tag
-----BEGIN PGP SIGNATURE-----

iQEzBAABCgAdFiEEd0NiiHjItd/ANql92jxJEJTVkrYFAml+l4AACgkQ2jxJEJTV
kraltQf/cUf4k2gbDdNt+M+DECuZBlYnZvko8tmX1u2YrkWZLUJJHStceYSafs6Q
haeEy0+625Yyqtl4kUuZXKK7GYe8kODjhUpWBXiudAp9NJfM//68MvkIB8s630Py
13VzGZm+dcWbL1haCARWGMXKO2t4MlB+gUJq9Shmgr1ZxnGfdvVfCYMexCeULMPE
J/+ixwYx/ImJtcH1dncYb69e50zJLjCdEjsm6mgpysKMYDgpdyPwD0pK1rE7dlgO
Dl/qJ33xYCVtdlxS+R5G2nDN3nKy5Mvv/WamVTnHhYEWbSJtL7+jv9ZCTh9HZcxG
ng02iuM6IVhB3NEgbFpoaO7DrwbH/Q==
=luZK
-----END PGP SIGNATURE-----
